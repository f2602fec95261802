"""`/api`: uploads, audits, plans and manager."""

import asyncio

from fastapi import APIRouter, Request
from starlette.responses import Response

from moreish.data import CATALOG
from moreish.serve.http import (
    ERROR_RESPONSES,
    EVENT_STREAM_RESPONSE,
    ErrorBody,
    EventStream,
    cancel_on_disconnect,
)
from moreish.serve.jobs import schemas
from moreish.serve.jobs.manager import TrainingManager
from moreish.serve.jobs.uploads import UploadedText, ValidName
from moreish.serve.native import HistoryResponse


def router(manager: TrainingManager) -> APIRouter:
    """Return the routes below /api for texts and manager."""
    api = APIRouter(prefix="/api", tags=["training"], responses=ERROR_RESPONSES)
    limits = manager.registry.limits
    upload_schema = {"schema": {"type": "string", "minLength": 1}}
    upload_body = {"required": True, "content": {"application/octet-stream": upload_schema}}

    @api.get("/texts")
    async def list_texts() -> schemas.UploadList:
        """List the uploaded texts and the built-in data sets."""
        texts = await asyncio.to_thread(manager.texts.contents)  # it reads the beginnings of tables
        return schemas.UploadList(texts=texts, datasets=list(CATALOG))

    @api.post(
        "/texts",
        max_body_size=limits.upload_bytes,
        openapi_extra={"requestBody": upload_body},
        responses={507: {"model": ErrorBody, "description": "The disk of the server is full."}},
    )
    async def upload_text(name: ValidName, request: Request) -> UploadedText:
        """Upload a text: the body has its bytes."""
        return await manager.texts.save(name, request)

    @api.post("/doctor")
    async def doctor(body: schemas.TextRequest, request: Request) -> schemas.DoctorResponse:
        """Audit a text and suggest options that clean it."""
        work = manager.run_worker("doctor", body)
        return schemas.DoctorResponse(**await cancel_on_disconnect(work, request, limits.seconds))

    @api.post("/plan")
    async def plan(body: schemas.PlanRequest, request: Request) -> schemas.PlanResponse:
        """Return what training would do, and why."""
        work = manager.run_worker("plan", body)
        return schemas.PlanResponse(**await cancel_on_disconnect(work, request, limits.seconds))

    @api.get("/training/name")
    async def available_name(name: ValidName) -> schemas.NameResponse:
        """Return a name for a new run: the requested one or a similar one that is not taken."""
        return schemas.NameResponse(name=manager.runs.available_name(name))

    @api.post("/training", status_code=202)
    async def train(body: schemas.TrainRequest) -> schemas.TrainingStatus:
        """Start training."""
        manager.train(body.name, body)
        return manager.status

    @api.get("/training")
    async def training() -> schemas.TrainingStatus:
        """Return the progress of training."""
        return manager.status

    @api.get("/training/history")
    async def training_history(request: Request) -> HistoryResponse:
        """Return what the run has logged so far."""
        work = manager.executor.run(manager.history)
        return await cancel_on_disconnect(work, request, limits.seconds)

    @api.get("/training/events", responses=EVENT_STREAM_RESPONSE, response_class=Response)
    async def training_events() -> Response:
        """Stream the progress of training as server-sent events."""
        return EventStream(status.model_dump_json() async for status in manager.status_changes())

    @api.post("/training/stop", status_code=202)
    async def stop() -> schemas.TrainingStatus:
        """Stop training; it can be resumed."""
        manager.interrupt()
        return manager.status

    @api.post("/training/delete")
    async def delete(body: schemas.DeleteRequest) -> schemas.TrainingStatus:
        """Delete a run and its model for good."""
        await manager.delete(body.name)
        return manager.status

    @api.post("/training/rename")
    async def rename(body: schemas.RenameRequest) -> schemas.TrainingStatus:
        """Rename a run and its model."""
        await manager.rename(body.name, body.new_name)
        return manager.status

    @api.post("/training/resume", status_code=202)
    async def resume(body: schemas.ResumeRequest) -> schemas.TrainingStatus:
        """Resume a run that was stopped."""
        manager.resume(body.name, body.minutes)
        return manager.status

    return api
