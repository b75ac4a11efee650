"""Makes parts of the documentation from the program: the reference (`make docs`) and the picture."""
