"""A redrive over a real broker that is killed outright, in another process, at a step of our choosing."""

import subprocess
import sys
import uuid
from collections import Counter

import pytest

from infra.config import LogConfig
from ingest.letters import command
from ingest.letters.choose import Rules, Source, Wanted
from ingest.log import letters
from ingest.log.kafka_log import KafkaLog
from ingest.log.letters import Failure
from ingest.log.protocol import Message, TopicSpec
from ingest.log.topics import Topic, dead_letters
from ingest.records.events import Feedback

NUM, BATCH = 250, 100
FIRST_BATCH = 3 * BATCH + 3  # a note, a message and another note for each; a flush after each kind

VICTIM = """
import sys
from infra.config import LogConfig
from ingest.letters import command
from ingest.letters.choose import Rules, Source, Wanted
from ingest.log.kafka_log import KafkaLog
from ingest.log.topics import Topic
from ingest.records.events import Feedback

brokers, topic, letters, at = sys.argv[1:]

class Halting(KafkaLog):
    left = int(at)

    def step(self):
        self.left -= 1
        if self.left < 0:
            super().flush(10.0)  # what it sent arrives
            print("halted", flush=True)
            sys.stdin.read()

    def append(self, *args):
        self.step()
        super().append(*args)

    def flush(self, timeout_s):
        self.step()
        super().flush(timeout_s)

log = Halting(LogConfig(brokers=brokers, timeout_s=10.0), "victim")
rules = Rules.of(log, 3, True)
command.redriven(log, Source(letters, "group", Topic(topic, Feedback)), Wanted(), rules, 10.0)
"""


@pytest.mark.parametrize(
    "at",
    [
        BATCH + 1 + BATCH // 2,
        2 * BATCH + 2,
        FIRST_BATCH + BATCH // 2,
        FIRST_BATCH + 2 * BATCH + 1,
    ],
    ids=["while it sends", "before it notes the first batch", "while it begins the second", "before the second flush"],
)
def test_every_letter_is_put_back_once_though_a_redrive_was_killed(kafka_config: LogConfig, at: int) -> None:
    topic = f"feedback-{uuid.uuid4().hex[:12]}"
    source = Source(dead_letters(topic, "group"), "group", Topic(topic, Feedback))
    log = KafkaLog(kafka_config, "test")
    log.create([TopicSpec(topic, 2, None)])
    for number in range(NUM):
        message = Message(topic, number % 2, number, f"key {number}", b"broken", {})
        letters.bury(log, "group", message, Failure.UNREADABLE, "because")
    log.flush(10.0)

    arguments = [sys.executable, "-c", VICTIM, kafka_config.brokers, topic, source.name, str(at)]
    victim = subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert victim.stdout is not None
    assert victim.stdin is not None
    assert victim.stdout.readline() == b"halted\n"
    victim.kill()
    victim.wait()
    victim.stdout.close()
    victim.stdin.close()

    plan = command.redriven(log, source, Wanted(), Rules.of(log, 3, True), 10.0)
    assert (len(plan.chosen) + plan.num_done, plan.refused) == (NUM, [])
    assert plan.num_done < NUM
    there = Counter(message.key for message in log.replay(topic))
    assert there == Counter(f"key {number}" for number in range(NUM))
    log.close()
