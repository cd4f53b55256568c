"""Load variants, chat with them and record snapshots: used by the screen and by the commands."""
