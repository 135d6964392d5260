"""What the contract's class is made of: its fields, its options, and its way to a request of ours."""
