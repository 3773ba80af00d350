"""The same learner on trajectories in files: `onstream train --from`. Importing it needs no torch."""
