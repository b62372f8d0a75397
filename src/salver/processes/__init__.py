"""The main()s: each builds the parts of one process, wires them and runs them."""
