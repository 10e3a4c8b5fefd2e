"""What operators may do while the server runs: `motherlode.v1.ModelAdminService`."""

from motherlode.server.admin.operations import Operations
from motherlode.server.admin.servicer import SERVICE, AdminServicer
from motherlode.server.admin.under_way import UnderWay

__all__ = ["SERVICE", "AdminServicer", "Operations", "UnderWay"]
