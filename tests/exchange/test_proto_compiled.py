"""The generated code is what proto/ compiles to."""

import importlib
import subprocess
import sys
from pathlib import Path

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet

ROOT = Path(__file__).parents[2]
SOURCES = sorted((ROOT / "proto" / "picker" / "proto").glob("*.proto"))


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> dict[str, FileDescriptorProto]:
    out = tmp_path_factory.mktemp("proto") / "all.pb"
    command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{ROOT / 'proto'}", f"--descriptor_set_out={out}"]
    subprocess.run([*command, *map(str, SOURCES)], check=True)
    return {file.name: file for file in FileDescriptorSet.FromString(out.read_bytes()).file}


@pytest.mark.parametrize("source", [source.stem for source in SOURCES])
def test_generated_code_is_current(compiled: dict[str, FileDescriptorProto], source: str) -> None:
    shipped = FileDescriptorProto()
    importlib.import_module(f"picker.proto.{source}_pb2").DESCRIPTOR.CopyToProto(shipped)
    fresh = compiled[f"picker/proto/{source}.proto"]
    for descriptor in (shipped, fresh):
        clear_json_names(descriptor)
    assert shipped == fresh, "run `make proto`"


def clear_json_names(file: FileDescriptorProto) -> None:
    """The compiler writes them, the runtime drops them."""
    for message in list(file.message_type):
        for each in [message, *message.nested_type]:
            for field in each.field:
                field.ClearField("json_name")
