# The image of promdump: two static programs and nothing else. The files are those of
# the release, laid out by make snapshot:
#
#   docker buildx build --platform linux/amd64,linux/arm64 -f Dockerfile dist/image
#
# Where there is no builder, dist/promdump_VERSION_image.tar is the same image.
FROM scratch
ARG TARGETARCH
COPY ${TARGETARCH}/ /
ENV PATH=/usr/bin
USER 65534:65534
ENTRYPOINT ["/usr/bin/promdump"]
