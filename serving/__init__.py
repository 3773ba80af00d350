"""What users meet: engines with capture and hot swap, the router, the gate, the rollout."""
