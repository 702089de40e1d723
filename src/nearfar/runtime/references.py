"""Records by reference inside kernels: one pointer instead of hundreds of numbers.

A record (a named tuple) is passed to a kernel as all its numbers; an array of two axes alone is
nine of them. That costs little when it happens once, in the call from Python. Between the kernels
of a step it would be most of the code to compile. So the kernel that Python calls creates
`refer(record)`, and the others read a field where they need it: ``reference.field`` is the field,
or a reference to it if it is itself a record.

Assign a field that is an array to a variable before a loop: a field that is read through a
reference is read again after every store, because the compiler cannot know that it is unchanged.

A reference is valid while the kernel that created it runs. It does not keep its arrays alive; the
arguments of that kernel do.
"""

from __future__ import annotations

import hashlib
from typing import Any

from llvmlite import ir
from numba import extending, types
from numba.core import cgutils
from numba.core.imputils import impl_ret_untracked
from numba.core.typing.templates import AttributeTemplate, infer_getattr

intrinsic: Any = extending.intrinsic


class Reference(types.Type):
    """The type of a reference to a record."""

    def __init__(self, record: Any) -> None:
        self.record = record
        digest = hashlib.blake2b(str(record).encode(), digest_size=8).hexdigest()
        # a part of every symbol name; the record's own name can have thousands of characters
        super().__init__(name=f"Reference({record.instance_class.__name__}, {digest})")


@extending.register_model(Reference)
class _ReferenceModel(extending.models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Reference) -> None:
        record = manager.lookup(kind.record).get_value_type()
        super().__init__(manager, kind, record.as_pointer())


@intrinsic
def refer(typing_context, record):  # type: ignore[no-untyped-def]
    """Return a reference to a record of the calling kernel."""

    def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]
        slot = cgutils.alloca_once(builder, context.get_value_type(signature.args[0]))
        _store(builder, signature.args[0], args[0], slot)
        return slot

    return Reference(record)(record), generate


def _store(builder: Any, record: Any, value: Any, slot: Any) -> None:
    """Store a record field by field, because the compiler is slow with large values."""
    for i, kind in enumerate(record.types):
        part = builder.extract_value(value, i)
        place = cgutils.gep_inbounds(builder, slot, 0, i)
        if isinstance(kind, types.BaseNamedTuple):
            _store(builder, kind, part, place)
        else:
            builder.store(part, place)


@infer_getattr
class _ReferenceAttribute(AttributeTemplate):
    key = Reference

    def generic_resolve(self, reference: Reference, name: str) -> Any:
        fields = reference.record.instance_class._fields
        if name not in fields:
            return None
        kind = reference.record.types[fields.index(name)]
        return Reference(kind) if isinstance(kind, types.BaseNamedTuple) else kind


@extending.lower_getattr_generic(Reference)
def _get(context, builder, kind, value, name):  # type: ignore[no-untyped-def]
    at = kind.record.instance_class._fields.index(name)
    place, of = cgutils.gep_inbounds(builder, value, 0, at), kind.record.types[at]
    if isinstance(of, types.BaseNamedTuple):
        return place
    found = builder.load(place)
    if isinstance(of, types.Array):  # without an owner no references are counted
        for owner in (0, 1):
            no_owner = ir.Constant(found.type.elements[owner], None)
            found = builder.insert_value(found, no_owner, owner)
    return impl_ret_untracked(context, builder, of, found)
