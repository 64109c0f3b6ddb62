"""What each endpoint is doing: scraped metrics, KV events, the prefix index, and the ledger of our own picks.

Law of the room: every signal carries its age; sources write columns, picks read them, nobody waits.
"""
