"""`onstream erase`: a user made unreadable on the log, in the lake and in every copy of them."""
