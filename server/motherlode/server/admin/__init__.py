"""What operators may do while the server runs: `motherlode.v1.ModelAdminService`."""

from motherlode.server.admin.operations import Operations
from motherlode.server.admin.servicer import SERVICE, AdminServicer

__all__ = ["SERVICE", "AdminServicer", "Operations"]
