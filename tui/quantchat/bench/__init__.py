"""What is done with variants, whoever shows it: this knows no screen.

Chats, rounds, votes, scores and tasks: it starts workers, orders turns, gathers what they measure.
Before them the plan (will they fit?) and the doctor (what will not work here?).
"""
