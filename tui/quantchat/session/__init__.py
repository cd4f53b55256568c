"""Sessions without a screen: load variants, chat with them, order turns, record snapshots."""
