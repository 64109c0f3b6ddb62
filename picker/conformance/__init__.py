"""The gateway's side of the endpoint picker protocol, played against any EPP, with a verdict for each rule.

Law of the room: no case knows whose EPP it is. It sees the wire and the endpoints, assumes no policy and no key that is
not of the protocol, waits for nothing without a deadline, and says what was seen where a rule is broken.
"""
