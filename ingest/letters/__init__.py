"""Letters, as people work with them: `onstream dlq`."""
