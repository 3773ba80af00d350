"""What the trainer did, version by version, for people: `onstream train report`."""
