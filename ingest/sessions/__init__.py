"""From traces and feedback to closed sessions: the table of open ones, their chains, links and turns, the stage."""
