"""moto's server, with the one call of EFS that terraform/aws makes and moto 5.2 lacks: DeleteFileSystemPolicy."""

from __future__ import annotations

import sys
from typing import Any

import moto.server
from moto.efs.responses import EFSResponse


def delete_file_system_policy(self: Any) -> tuple[int, dict[str, int], str]:  # noqa: ANN401 - moto's response object
    """Forget a file system's policy."""
    file_system_id = self._get_param("FileSystemId")
    self.efs_backend.file_systems_by_id[file_system_id].file_system_policy = None
    return 200, {"status": 200}, "{}"


if __name__ == "__main__":
    if not hasattr(EFSResponse, "delete_file_system_policy"):
        EFSResponse.delete_file_system_policy = delete_file_system_policy
    moto.server.main(sys.argv[1:])
