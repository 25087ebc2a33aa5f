"""What is stored of a task: rows of bits, and superpositions of them."""
