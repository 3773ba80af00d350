"""Evidence that a version is good, or harmful: e-processes, and the verdicts that read them. Usable as a library.

    evidence = Evidence()                                        # of all versions; file rewards as they come
    evidence.add(reward)
    baselines = evidence.baselines(stable, gate)                 # frozen before the trial
    judge(evidence.trial(candidate, baselines, gate), trial=1, promotions=0)
    watch(evidence.watch(promoted, baselines, gate), alpha=0.05, max_units=2000, max_s=86_400)

or, without this project's records, `Process(Design(Baseline(0.6, 0.24), margin=0.02))` and its `add`. Each function
names the theorem that it relies on.
"""

from serving.rollout.evidence.bets import Baseline as Baseline
from serving.rollout.evidence.bets import Design as Design
from serving.rollout.evidence.held import Evidence as Evidence
from serving.rollout.evidence.judging import Standing as Standing
from serving.rollout.evidence.judging import Verdict as Verdict
from serving.rollout.evidence.judging import judge as judge
from serving.rollout.evidence.judging import share_at as share_at
from serving.rollout.evidence.keeping import keep as keep
from serving.rollout.evidence.keeping import read as read
from serving.rollout.evidence.pairs import Pairs as Pairs
from serving.rollout.evidence.pairs import paired as paired
from serving.rollout.evidence.process import Process as Process
from serving.rollout.evidence.stream import level as level
from serving.rollout.evidence.tally import REWARD as REWARD
from serving.rollout.evidence.tally import Tally as Tally
from serving.rollout.evidence.units import Unit as Unit
from serving.rollout.evidence.watching import watch as watch
