"""What operators see of the rollout and do with it: `onstream rollout`, and what the controller tells it."""
