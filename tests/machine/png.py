"""PNG files as umbra writes them (8-bit RGB), and a digest of pictures that small differences do not change."""
import struct
import zlib


def read(path):
    """Width, height, and the rows as bytes of three a pixel."""
    data = open(path, "rb").read()
    if data[:8] != b"\x89PNG\r\n\x1a\n":
        raise AssertionError(path + " is no PNG file")
    at, body, width, height = 8, b"", 0, 0
    while at < len(data):
        length, kind = struct.unpack(">I4s", data[at:at + 8])
        chunk = data[at + 8:at + 8 + length]
        if zlib.crc32(kind + chunk) != struct.unpack(">I", data[at + 8 + length:at + 12 + length])[0]:
            raise AssertionError("a damaged chunk")
        if kind == b"IHDR":
            width, height, depth, colour = struct.unpack(">IIBB", chunk[:10])
            if (depth, colour) != (8, 2):
                raise AssertionError("not 8-bit RGB")
        if kind == b"IDAT":
            body += chunk
        at += 12 + length
    return width, height, unfilter(zlib.decompress(body), width * 3, height)


def unfilter(raw, stride, height):
    rows, before, at = [], bytearray(stride), 0
    for _ in range(height):
        kind, row = raw[at], bytearray(raw[at + 1:at + 1 + stride])
        at += 1 + stride
        for k in range(stride) if kind else ():
            left, up, corner = row[k - 3] if k >= 3 else 0, before[k], before[k - 3] if k >= 3 else 0
            if kind == 1:
                guess = left
            elif kind == 2:
                guess = up
            elif kind == 3:
                guess = (left + up) // 2
            else:
                p = left + up - corner
                guess = min((abs(p - left), 0, left), (abs(p - up), 1, up), (abs(p - corner), 2, corner))[2]
            row[k] = (row[k] + guess) & 255
        rows.append(bytes(row))
        before = row
    return rows


def pixel(picture, x, y):
    return tuple(picture[2][y][3 * x:3 * x + 3])


def digest(picture, columns=36, lines=25):
    """A character for each cell of a grid: a blank where it is dark, else which of red, green and blue are strong in what is not."""
    width, height, rows = picture
    out = []
    for j in range(lines):
        text = ""
        for i in range(columns):
            total, lit = [0, 0, 0], 0
            for y in range(height * j // lines, height * (j + 1) // lines):
                cell = rows[y][3 * (width * i // columns):3 * (width * (i + 1) // columns)]
                if not any(cell):
                    continue
                for x in range(0, len(cell), 3):
                    if max(cell[x:x + 3]) > 40:
                        lit += 1
                        for c in range(3):
                            total[c] += cell[x + c]
            strong = sum(1 << c for c in range(3) if lit and total[c] > 60 * lit)
            text += " " if lit < 4 else "0123456W"[strong]
        out.append(text)
    return out


def shades(picture, columns=36, lines=25):
    """A hexadecimal digit for each cell of a grid: how light it is on the average. For pictures that are not dark."""
    width, height, rows = picture
    out = []
    for j in range(lines):
        part, text = rows[height * j // lines:height * (j + 1) // lines], ""
        for i in range(columns):
            x, end = 3 * (width * i // columns), 3 * (width * (i + 1) // columns)
            text += "%x" % (sum(sum(row[x:end]) for row in part) // (len(part) * (end - x)) >> 4)
        out.append(text)
    return out


def shade_distance(a, b):
    """How many cells of two such differ by more than one shade."""
    return sum(abs(int(x, 16) - int(y, 16)) > 1 for one, other in zip(a, b) for x, y in zip(one, other)) + 1000 * (len(a) != len(b))


def distance(a, b):
    """How many cells of two digests differ."""
    return sum(x != y for one, other in zip(a, b) for x, y in zip(one, other)) + 1000 * (len(a) != len(b))


def reference(text):
    """A digest written as lines between bars."""
    return [line.strip()[1:-1] for line in text.strip().splitlines()]
