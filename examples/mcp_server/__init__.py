"""An MCP server whose tools each need an action token."""
