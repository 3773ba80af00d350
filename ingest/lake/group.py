"""What the lake's stage reads, and as which group: for those who look at its lag, without its libraries."""

from ingest.log.topics import FATES, FEEDBACK, RELEASES, REWARDS, TRAJECTORIES

GROUP = "lake"
TOPICS = (TRAJECTORIES, FEEDBACK, REWARDS, FATES, RELEASES)
