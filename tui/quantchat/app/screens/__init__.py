"""The screens: start, comparison, blind vote, and the dialogs that open over them."""
