"""`/api`: uploads, audits, plans and trainings."""

from fastapi import APIRouter, Request
from starlette.responses import Response

from moreish.serve.http import (
    ERROR_RESPONSES,
    EVENT_STREAM_RESPONSE,
    EventStream,
    cancel_on_disconnect,
)
from moreish.serve.jobs import schemas
from moreish.serve.jobs.manager import TrainingManager
from moreish.serve.jobs.uploads import UploadedText, ValidName
from moreish.serve.native import HistoryResponse


def router(trainings: TrainingManager) -> APIRouter:
    """Return the routes below /api for texts and trainings."""
    api = APIRouter(prefix="/api", tags=["training"], responses=ERROR_RESPONSES)
    limits = trainings.registry.limits
    upload_schema = {"schema": {"type": "string", "minLength": 1}}
    upload_body = {"required": True, "content": {"application/octet-stream": upload_schema}}

    @api.get("/texts")
    async def list_texts() -> schemas.UploadList:
        """List the uploaded texts."""
        return schemas.UploadList(texts=trainings.texts.contents())

    @api.post(
        "/texts", max_body_size=limits.upload_bytes, openapi_extra={"requestBody": upload_body}
    )
    async def upload_text(name: ValidName, request: Request) -> UploadedText:
        """Upload a text: the body has its bytes."""
        return await trainings.texts.save(name, request)

    @api.post("/doctor")
    async def doctor(body: schemas.TextRequest, request: Request) -> schemas.DoctorResponse:
        """Audit a text and suggest options that clean it."""
        work = trainings.run_worker("doctor", body)
        return schemas.DoctorResponse(**await cancel_on_disconnect(work, request, limits.seconds))

    @api.post("/plan")
    async def plan(body: schemas.PlanRequest, request: Request) -> schemas.PlanResponse:
        """Return what a training would do, and why."""
        work = trainings.run_worker("plan", body)
        return schemas.PlanResponse(**await cancel_on_disconnect(work, request, limits.seconds))

    @api.get("/training/name")
    async def available_name(wanted: ValidName) -> schemas.NameResponse:
        """Return a name for a new run: the requested one or a similar one that is not taken."""
        return schemas.NameResponse(name=trainings.available_name(wanted))

    @api.post("/training", status_code=202)
    async def train(body: schemas.TrainRequest) -> schemas.TrainingStatus:
        """Start a training."""
        trainings.train(body.name, body)
        return trainings.status

    @api.get("/training")
    async def training() -> schemas.TrainingStatus:
        """Return the progress of the training."""
        return trainings.status

    @api.get("/training/history")
    async def training_history(request: Request) -> HistoryResponse:
        """Return what the training has logged so far."""
        work = trainings.executor.run(trainings.history)
        return await cancel_on_disconnect(work, request, limits.seconds)

    @api.get("/training/events", responses=EVENT_STREAM_RESPONSE, response_class=Response)
    async def training_events() -> Response:
        """Stream the progress of the training as server-sent events."""
        return EventStream(status.model_dump_json() async for status in trainings.status_changes())

    @api.post("/training/stop", status_code=202)
    async def stop() -> schemas.TrainingStatus:
        """Stop the training; it can be resumed."""
        trainings.interrupt()
        return trainings.status

    @api.post("/training/resume", status_code=202)
    async def resume(body: schemas.ResumeRequest) -> schemas.TrainingStatus:
        """Resume a training that was stopped."""
        trainings.resume(body.name)
        return trainings.status

    return api
