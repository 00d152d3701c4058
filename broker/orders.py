"""Requests as the executions that they are."""

from __future__ import annotations

from msgspec.structs import replace

from broker import requests
from broker.batches import CODE, Batch, Order
from broker.errors import BadMessage
from broker.execution import Execution
from broker.faults import bad_field
from broker.parcels import check_surroundings, fields_of, parcel_of
from broker.requests import Call, Execute
from broker.roles import SessionLimits
from broker.surroundings import Surroundings

Runs = Execute | Call | requests.Batch


def executions_of(
    request: Runs, owner: object, now: float, limits: SessionLimits, around: Surroundings
) -> list[Execution]:
    """Return what is to run, in order. Raises BadMessage naming the field."""
    if isinstance(request, requests.Batch):
        return _cells(request, owner, now, limits, around)
    order, parcel = CODE, parcel_of(request)
    if parcel is not None:
        if limits.code_only:
            raise code_only(fields_of(parcel))
        order = Order(parcel)
    if isinstance(request, requests.ExecuteRequest):
        order = Order(parcel, expressions=request.user_expressions)
    if isinstance(request, Call):
        # One that fails aborts nothing: a call stands for itself.
        request = Execute(
            id=request.id,
            code=request.function,
            timeout=request.timeout,
            silent=True,
            stop_on_error=False,
        )
    elif parcel is not None:  # which has them now, and shows them to nobody
        request = replace(request, inputs={}, env={}, cwd=None)
    return [Execution(request, owner, now, limits.output, order=order, around=around)]


def _cells(
    request: requests.Batch, owner: object, now: float, limits: SessionLimits, around: Surroundings
) -> list[Execution]:
    number = len(request.cells)
    if number > limits.queue:
        raise bad_field("cells", f"{number} cells; the session's queue holds {limits.queue}")
    batch = Batch(request.id, number, now)
    executions = []
    for index, cell in enumerate(request.cells):
        execute = Execute(
            id=request.id, code=cell.code, timeout=cell.timeout, stop_on_error=request.stop_on_error
        )
        order = Order(batch=batch, cell=index)
        executions.append(Execution(execute, owner, now, limits.output, order=order, around=around))
    return executions


def surrounded(
    around: Surroundings, request: requests.Configure, limits: SessionLimits, *, applied: int = 0
) -> Surroundings:
    """Return what is around all that is submitted from then on. Raises BadMessage.

    `applied` is the version of it that the kernel has.
    """
    check_surroundings(request)
    if not request.env and request.cwd is None:
        return around
    if limits.code_only:
        raise code_only("env" if request.env else "cwd")
    if request.again and around.has(request.env, request.cwd):
        return around
    return around.changed(request.env, request.cwd, applied=applied)


def code_only(field: str) -> BadMessage:
    """Return the refusal of what another kernelspec's kernels know nothing of."""
    return bad_field(field, "this profile's kernels are of another kernelspec, and take code alone")
