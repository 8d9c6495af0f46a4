"""XMP sidecars (ISO 16684-1; Exif for XMP, CIPA DC-010): a position beside a photo that stays as it is."""

from __future__ import annotations

from xml.sax.saxutils import escape

from models.images.writing.tiff_gps import ExifPosition

__all__ = ["names_position", "sidecar_of"]

_TEMPLATE = """<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/" x:xmptk="placeray">
 <rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
  <rdf:Description rdf:about="" xmlns:exif="http://ns.adobe.com/exif/1.0/"
   exif:GPSVersionID="2.3.0.0"
   exif:GPSMapDatum="WGS-84"
   exif:GPSProcessingMethod="placeray"
   exif:GPSLatitude="{lat}"
   exif:GPSLongitude="{lon}"{error}/>
 </rdf:RDF>
</x:xmpmeta>
<?xpacket end="w"?>
"""


def sidecar_of(position: ExifPosition) -> bytes:
    """Return the contents of a sidecar that names a position."""
    error = ""
    if position.error_m is not None:
        error = f'\n   exif:GPSHPositioningError="{escape(str(round(position.error_m * 100)))}/100"'
    lat, lon = _angle(position.lat, "NS"), _angle(position.lon, "EW")
    return _TEMPLATE.format(lat=lat, lon=lon, error=error).encode()


def names_position(xmp: bytes) -> bool:
    """Return whether an XMP packet names a latitude or a longitude, in whatever form."""
    return b"GPSLatitude" in xmp or b"GPSLongitude" in xmp


def _angle(degrees: float, halves: str) -> str:
    """Return degrees and minutes as XMP writes them: 48,8.20833333N."""
    millionths = round(abs(degrees) * 60 * 10**8)
    whole, minutes = divmod(millionths, 60 * 10**8)
    return f"{whole},{minutes / 10**8:.8f}{halves[0] if degrees >= 0 else halves[1]}"
