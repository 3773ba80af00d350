"""A reward spec tried on what lies in the lake: `onstream rewards backtest`."""
