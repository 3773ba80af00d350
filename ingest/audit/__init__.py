"""`onstream audit`: what became of every trace and of all feedback."""
