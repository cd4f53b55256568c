"""Vote blindly on answers: the session, its record and its tables."""
