"""What is allowed: a delegation, a request and facts become Permit, Refuse or NeedsApproval. No input, no output."""
