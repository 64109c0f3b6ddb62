"""Which endpoints exist. One immutable `PoolView`, replaced whole at each change.

Law of the room: a view never changes after it is published; a reader holds one reference for one pick.
"""
