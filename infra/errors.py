"""One error tree.

    OnstreamError
    ├── ConfigError        (ValueError)       a configuration the user can fix
    ├── StartError         (RuntimeError)     a process cannot start: port taken, model missing, broker away
    ├── RecordError        (ValueError)       bytes on the log that are not the record they claim to be
    │   ├── ErasedError                       ... because the person it is of was erased: its key is gone
    │   └── NewerError                        a record of a version newer than this process knows: not damaged
    ├── LogError           (ConnectionError)  the event log did not take or give a record in time
    │   └── UnreleasedError                   ... and nothing was ever released: there is no version to serve
    ├── StoreError         (OSError)          a store is unreadable, or what it holds is damaged
    │   ├── StoreOutageError                  ... it did not take or give a file, and may at another time
    │   └── SignatureError                    ... a version nobody vouches for: unsigned, altered, or by no known key
    ├── LakeError          (OSError)          the lake is unreadable, or cannot be written now
    ├── ControlError       (RuntimeError)     an engine refused or failed a control-plane command
    └── TransitionError    (ValueError)       a lifecycle was asked for a step its table does not have

A message names the thing, the rule and what was got. A person sees the message; a stack trace is for
defects of ours. Expected outcomes (`Unscored`, a refused trace) are values, not errors.
"""


class OnstreamError(Exception):
    """Base of every error Onstream raises on purpose."""


class ConfigError(OnstreamError, ValueError):
    """A configuration file, key or value that cannot be used."""


class StartError(OnstreamError, RuntimeError):
    """A process cannot start in the surroundings it was given."""


class RecordError(OnstreamError, ValueError):
    """Bytes on the log that cannot be read as the record they claim to be."""


class ErasedError(RecordError):
    """A record of an erased person: its key is gone for good, and nothing may be made of it again."""


class NewerError(RecordError):
    """A record of a schema version that this process is too old for. Its bytes are not damaged, and not guessed."""


class LogError(OnstreamError, ConnectionError):
    """The event log did not accept or return a record in time."""


class UnreleasedError(LogError):
    """The log holds no release yet. What needs one waits, as it does for a broker: `onstream bootstrap` makes it."""


class StoreError(OnstreamError, OSError):
    """A store, of weights or of keys, is unreadable, or what it holds fails verification."""


class StoreOutageError(StoreError):
    """A store did not take or give a file. What it holds is not what is wrong: it may at another time."""


class SignatureError(StoreError):
    """A version that no known key vouches for: it is unsigned, was altered, or was signed by somebody else."""


class LakeError(OnstreamError, OSError):
    """The lake is unreadable, cannot be written now, or what it holds is not what it should be."""


class ControlError(OnstreamError, RuntimeError):
    """An engine refused or failed a control-plane command."""


class TransitionError(OnstreamError, ValueError):
    """A lifecycle table has no such step."""
