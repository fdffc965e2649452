"""A clip becomes a sample, in a process of its own, so that a bad clip costs only itself.

ahead     samples of many clips, whose videos are fetched while others are decoded
process   the life of the child, seen from the process that wants the samples
wire      the messages between both
server    the child
sample    what the child does: a clip in, the members of its sample out
"""
