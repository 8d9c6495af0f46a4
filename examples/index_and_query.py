"""Index a folder of photos and find the place of another photo.

    python examples/index_and_query.py city/images/test/database store PHOTO

Positions come from EXIF or, as in a drawn city, from file names. Indexing again only adds what is new.
"""

import sys

import placeray


def main(folder: str, store: str, photo: str) -> None:
    """Index `folder` into `store`, then print the five most similar places of `photo`."""
    report = placeray.index(folder, store)
    print(f"{report.accepted} images indexed, {report.rejected} rejected")

    engine = placeray.QueryEngine.open(store)
    answer = engine.answer(photo, top_k=5)
    for match in answer.matches:
        lat, lon = match.record.position.lat, match.record.position.lon
        print(f"{match.rank}. {match.record.image_id}: {match.mutual_matches} matches at {lat}, {lon}")


if __name__ == "__main__":
    main(*sys.argv[1:])
