from infra.config import LossConfig, LossKind, TrainerConfig
from trainer.offline.training import imitating, with_method


def test_another_method_has_its_own_clips_and_keeps_the_rest() -> None:
    config = TrainerConfig(loss=LossConfig.model_validate({"kind": "gspo", "kl_coefficient": 0.1}))
    loss = with_method(config, LossKind.CISPO).loss
    assert (loss.kind, loss.clip_high, loss.kl_coefficient) == (LossKind.CISPO, 4.0, 0.1)
    assert with_method(config, LossKind.GSPO) == config
    assert with_method(TrainerConfig(), LossKind.GSPO).loss == LossConfig.model_validate({"kind": "gspo"})
    assert with_method(config, LossKind.DR_GRPO).loss == LossConfig(kl_coefficient=0.1)


def test_imitation_is_stopped_by_no_ratio_but_by_what_is_not_finite() -> None:
    config = imitating(TrainerConfig())
    assert config.loss.kind is LossKind.LIKELIHOOD
    assert (config.alarms.min_ess, config.alarms.max_kl, config.alarms.max_mismatch) == (None, None, None)
    assert config.alarms.max_gradient_rise is not None
