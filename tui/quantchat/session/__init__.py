"""What is done with variants, whoever shows it: load them, chat, order turns, record. No screen."""
