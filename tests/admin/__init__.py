"""The administrators' API over real HTTP."""
