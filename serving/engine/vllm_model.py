"""vLLM as `serving.engine.scoring` sees it: token ids in, log-probabilities and samples out.

How vLLM 0.32 treats prompt log-probabilities, read in its source and seen with a real model: asking for them makes a
request pass the prefix cache by, unless `skip_reading_prefix_cache` is set to false. Then what the cache held has no
log-probabilities - its rows are missing, or memory that nobody wrote, by the model runner - and all that follows has
the right ones: rows count from the end. `serving.engine.pieces` cuts questions so that what is asked is never in the
cache; where it is all the same, vLLM was told to cache less than whole blocks, and the question is asked without the
cache. Unwritten rows hold token ids too; `detokenize=False` keeps vLLM from looking those up.
"""

import copy
import json
import threading
import uuid
from typing import Any

from ingest.records.events import ChatMessage
from ingest.records.questions import Prompt, Sampled
from serving.engine.pieces import Tokens

# Not the users' salt: their cached conversations reach into the continuations that scorers ask about.
_SALT = "scoring"


class VllmModel:
    """An `AsyncLLM` whose `generate` is wrapped by `Capture`, for the salt that every version has."""

    def __init__(self, engine: Any, chat_template: str | None = None) -> None:
        """`chat_template` is the text that vLLM was started with, if not the tokenizer's own."""
        self._engine, self._template = engine, chat_template
        # a copy: fast tokenizers do not bear two threads, and rendering leaves the users' loop alone in one of its own
        self._tokenizer, self._lock = copy.deepcopy(engine.get_tokenizer()), threading.Lock()

    @property
    def block(self) -> int:
        return int(self._engine.vllm_config.cache_config.block_size)

    @property
    def max_len(self) -> int:
        return int(self._engine.model_config.max_model_len)

    def render(self, prompt: Prompt) -> Tokens:
        """Token ids as the users' chat endpoint makes them. Raises `ValueError` where the template refuses."""
        from jinja2 import TemplateError

        messages, tools = [as_openai(message) for message in prompt.messages], tools_of(prompt.tools)
        try:
            with self._lock:
                ids = self._tokenizer.apply_chat_template(
                    messages,
                    tools=tools,
                    chat_template=self._template,
                    add_generation_prompt=prompt.is_open,
                    tokenize=True,
                    return_dict=False,
                )
        except TemplateError as exc:
            raise ValueError(f"the chat template refuses these messages: {exc}") from exc
        return tuple(ids)

    async def warm(self, token_ids: Tokens) -> int:
        output = await self._last(token_ids, detokenize=False, max_tokens=1)
        return len(token_ids) - int(output.num_cached_tokens)

    async def logps(self, token_ids: Tokens, start: int, then: int | None) -> tuple[list[float], int]:
        asked: dict[str, Any] = {"prompt_logprobs": 0, "flat_logprobs": True, "detokenize": False, "max_tokens": 1}
        if then is not None:  # the only token allowed; its log-probability is told as it was before that
            asked |= {"allowed_token_ids": [then], "logprobs": 0}
        output = await self._last(token_ids, **asked, skip_reading_prefix_cache=False)
        num_computed = len(token_ids) - int(output.num_cached_tokens)
        if output.num_cached_tokens >= start:
            output = await self._last(token_ids, **asked, skip_reading_prefix_cache=True)
            num_computed += len(token_ids)
        rows = output.prompt_logprobs
        found = [rows[at][token_ids[at]].logprob for at in range(start - len(token_ids), 0)]
        if then is not None:
            found.append(output.outputs[0].logprobs[0][then].logprob)
        return found, num_computed

    async def sample(self, token_ids: Tokens, num: int, max_tokens: int) -> tuple[Sampled, ...]:
        output = await self._last(token_ids, n=num, max_tokens=max_tokens, temperature=1.0)
        return tuple(Sampled(token_ids=tuple(part.token_ids), text=part.text) for part in output.outputs)

    async def _last(self, token_ids: Tokens, **params: Any) -> Any:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        wanted = SamplingParams(output_kind=RequestOutputKind.FINAL_ONLY, **params)
        prompt = {"prompt_token_ids": list(token_ids), "cache_salt": _SALT}
        outputs = [output async for output in self._engine.generate(prompt, wanted, f"scoring-{uuid.uuid4().hex}")]
        return outputs[-1]


def as_openai(message: ChatMessage) -> dict[str, Any]:
    """A message as chat templates take it: OpenAI's form, with arguments of tool calls as objects where they are."""
    given: dict[str, Any] = {"role": message.role, "content": message.text}
    if message.call_id:
        given["tool_call_id"] = message.call_id
    if message.tool_calls:
        given["tool_calls"] = [
            {
                "id": call.call_id,
                "type": "function",
                "function": {"name": call.name, "arguments": _object_or_text(call.arguments)},
            }
            for call in message.tool_calls
        ]
    return given


def tools_of(tools: str) -> list[dict[str, Any]] | None:
    """The tools that a prompt offers, each in the chat form; none where it offers none.

    Raises:
        ValueError: `tools` is no JSON list of objects.
    """
    if not tools:
        return None
    found = _object_or_text(tools)
    if not isinstance(found, list) or not all(isinstance(tool, dict) for tool in found):
        raise ValueError(f"tools: must be the JSON text of a list of tools, got {len(tools)} characters that are not")
    return [tool if "function" in tool else {"type": "function", "function": tool} for tool in found] or None


def _object_or_text(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
