"""Find the places of photos with a running service; needs neither the store nor the model here.

    placeray serve --store store
    python examples/query_service.py http://127.0.0.1:8000 PHOTO...

A service with authentication wants a token in the environment variable PLACERAY_TOKEN.
"""

import os
import sys

import placeray


def main(url: str, *photos: str) -> None:
    """Print the best place of each photo."""
    client = placeray.PlaceClient(url, token=os.environ.get("PLACERAY_TOKEN"))
    for photo in photos:
        try:
            answer = client.answer(photo, top_k=1)
        except placeray.PlacerayError as error:
            print(f"{photo}: {error}")
            continue
        best = answer.matches[0]
        print(f"{photo}: {best.record.image_id}, similarity {best.similarity:.3f}")


if __name__ == "__main__":
    main(*sys.argv[1:])
