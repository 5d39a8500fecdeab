FROM python:3.11-slim
RUN apt-get update && apt-get install --yes --no-install-recommends g++ git make && rm -rf /var/lib/apt/lists/*
WORKDIR /spfde
COPY . .
RUN make .venv/.ready
ENV PATH="/spfde/.venv/bin:$PATH"
CMD ["make", "reproduce"]
