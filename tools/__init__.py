"""What makes parts of the documents from the program itself: the reference (`make docs`) and the picture."""
