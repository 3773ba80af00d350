"""`onstream session ID`: one session as people read it."""
