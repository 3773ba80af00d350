"""The replay lane: idle engines answer users' prompts again, and the trainer learns from the answers as a group."""
