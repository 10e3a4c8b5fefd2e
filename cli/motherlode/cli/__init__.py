"""The command `motherlode`: one module per sub-command; no other role imports this one."""
