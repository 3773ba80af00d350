"""Which engine serves what: two pools of engines, or one that arms take turns on."""
