//! Small pictures of large ones.
//!
//! Pure: bytes in, bytes out, for a thread of its own ([`super::Media::thumbnail`] holds the semaphore and the clock). Whatever a file claims
//! to be, it is read by its content; one with too many pixels is refused before a pixel is decoded.
//!
//! Thumbnails are made for five boxes ([`SIZES`]), whatever is asked for, so nobody can make us keep thousands of one picture.
//!
//! Source: <https://spec.matrix.org/v1.19/client-server-api/#thumbnails>.

use std::io::Cursor;

use image::{
    AnimationDecoder as _, Delay, DynamicImage, Frame, ImageDecoder as _, ImageFormat, ImageReader, Limits,
    codecs::{gif::GifDecoder, jpeg::JpegEncoder, webp::WebPDecoder},
    imageops::FilterType,
};

/// Pixels of a picture that is made smaller.
pub const PIXELS_MAX: u64 = 64 << 20;
/// Memory a decoder may take, in bytes: the pixels with four bytes each, and as much again to work with.
const DECODER_BYTES_MAX: u64 = PIXELS_MAX * 8;
/// Frames of a moving thumbnail; what is longer stands still.
const FRAMES_MAX: usize = 200;
/// Pixels of all frames of a moving picture together: they are in memory at the same time, with four bytes each.
const FRAME_PIXELS_MAX: u64 = 64 << 20;
/// Quality of JPEG thumbnails, in percent.
const JPEG_QUALITY: u8 = 82;

/// How a picture is fitted into a box.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Method {
    /// Fill the box and cut off what stands over.
    Crop,
    /// Keep the whole picture, inside the box.
    Scale,
}

impl Method {
    /// As the specification writes it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Crop => "crop",
            Self::Scale => "scale",
        }
    }
}

/// A thumbnail somebody asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted {
    /// At least so wide, in pixels.
    pub width: u32,
    /// At least so high.
    pub height: u32,
    /// How it is fitted.
    pub method: Method,
    /// Whether it may move.
    pub animated: bool,
}

/// A box thumbnails are made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// Pixels.
    pub width: u32,
    /// Pixels.
    pub height: u32,
    /// How it is fitted.
    pub method: Method,
}

/// The boxes, the smallest first.
pub const SIZES: [Size; 5] = [
    Size { width: 32, height: 32, method: Method::Crop },
    Size { width: 96, height: 96, method: Method::Crop },
    Size { width: 320, height: 240, method: Method::Scale },
    Size { width: 640, height: 480, method: Method::Scale },
    Size { width: 800, height: 600, method: Method::Scale },
];

impl Wanted {
    /// The smallest box that is not smaller than what is wanted; `None` when all are, and the original is the answer. The larger
    /// boxes serve both methods, the small square ones only for cropping.
    #[must_use]
    pub fn fit(&self) -> Option<Size> {
        SIZES
            .iter()
            .find(|size| {
                size.width >= self.width
                    && size.height >= self.height
                    && (self.method == Method::Crop || size.method == Method::Scale)
            })
            .map(|size| Size { method: self.method, ..*size })
    }
}

/// What became of a picture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Made {
    /// It is not larger than the box: the original serves.
    Original,
    /// A thumbnail.
    Thumbnail {
        /// The file.
        bytes: Vec<u8>,
        /// Its type.
        content_type: &'static str,
    },
}

/// Why there is no thumbnail.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Not a picture, or none we read.
    #[error("this is not a picture we can read")]
    NotAPicture,
    /// More than [`PIXELS_MAX`] pixels.
    #[error("the picture has more than {PIXELS_MAX} pixels")]
    TooManyPixels,
}

impl From<image::ImageError> for Refused {
    fn from(error: image::ImageError) -> Self {
        match error {
            image::ImageError::Limits(_) => Self::TooManyPixels,
            _ => Self::NotAPicture,
        }
    }
}

/// Make a thumbnail of `original` for `size`.
///
/// # Errors
/// [`Refused`].
pub fn make(original: &[u8], size: Size, animated: bool) -> Result<Made, Refused> {
    let format = image::guess_format(original).map_err(|_| Refused::NotAPicture)?;
    let reader = || ImageReader::with_format(Cursor::new(original), format);
    let (width, height) = reader().into_dimensions()?;
    if u64::from(width) * u64::from(height) > PIXELS_MAX {
        return Err(Refused::TooManyPixels);
    }
    let is_small = width <= size.width && height <= size.height;
    if animated && let Some(frames) = frames(original, format, (width, height)) {
        return if is_small { Ok(Made::Original) } else { moving(frames, size) };
    }
    // A small picture that moves is not the answer for somebody who wants it still.
    if is_small && (animated || frames(original, format, (width, height)).is_none()) {
        return Ok(Made::Original);
    }
    let mut reader = reader();
    let mut limits = Limits::default();
    limits.max_alloc = Some(DECODER_BYTES_MAX);
    reader.limits(limits);
    let mut decoder = reader.into_decoder()?;
    let orientation = decoder.orientation()?;
    let mut picture = DynamicImage::from_decoder(decoder)?;
    picture.apply_orientation(orientation);
    let small = fitted(&picture, size);
    let mut bytes = Vec::new();
    // What was kept without loss stays so: drawings suffer most from JPEG.
    let content_type = if small.color().has_alpha() || format == ImageFormat::Png {
        small.write_to(&mut Cursor::new(&mut bytes), ImageFormat::Png)?;
        "image/png"
    } else {
        small.to_rgb8().write_with_encoder(JpegEncoder::new_with_quality(&mut bytes, JPEG_QUALITY))?;
        "image/jpeg"
    };
    Ok(Made::Thumbnail { bytes, content_type })
}

/// A picture fitted into a box, never made larger.
fn fitted(picture: &DynamicImage, size: Size) -> DynamicImage {
    let (width, height) = (picture.width(), picture.height());
    match size.method {
        Method::Scale if width <= size.width && height <= size.height => picture.clone(),
        Method::Scale => picture.resize(size.width, size.height, FilterType::Triangle),
        // The box is made smaller where the picture is, with the box's shape kept.
        Method::Crop => {
            let shrink = f64::from(size.width.min(width)) / f64::from(size.width);
            let shrink = shrink.min(f64::from(size.height.min(height)) / f64::from(size.height));
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "at most the box's size")]
            let side = |pixels: u32| ((f64::from(pixels) * shrink).round() as u32).max(1);
            picture.resize_to_fill(side(size.width), side(size.height), FilterType::Triangle)
        }
    }
}

/// The frames of a moving picture, when there are several and not too many.
fn frames(original: &[u8], format: ImageFormat, (width, height): (u32, u32)) -> Option<Vec<Frame>> {
    let all = match format {
        ImageFormat::Gif => GifDecoder::new(Cursor::new(original)).ok()?.into_frames(),
        ImageFormat::WebP => {
            let decoder = WebPDecoder::new(Cursor::new(original)).ok()?;
            if !decoder.has_animation() {
                return None;
            }
            decoder.into_frames()
        }
        _ => return None,
    };
    let frame_pixels = (u64::from(width) * u64::from(height)).max(1);
    let frames_max = usize::try_from(FRAME_PIXELS_MAX / frame_pixels).unwrap_or(FRAMES_MAX).min(FRAMES_MAX);
    let frames: Vec<Frame> = all.take(frames_max + 1).collect::<Result<_, _>>().ok()?;
    (frames.len() > 1 && frames.len() <= frames_max).then_some(frames)
}

fn moving(frames: Vec<Frame>, size: Size) -> Result<Made, Refused> {
    let mut bytes = Vec::new();
    {
        let mut encoder = image::codecs::gif::GifEncoder::new_with_speed(&mut bytes, 10);
        encoder.set_repeat(image::codecs::gif::Repeat::Infinite)?;
        for frame in frames {
            let delay: Delay = frame.delay();
            let small = fitted(&DynamicImage::ImageRgba8(frame.into_buffer()), size).to_rgba8();
            encoder.encode_frame(Frame::from_parts(small, 0, 0, delay))?;
        }
    }
    Ok(Made::Thumbnail { bytes, content_type: "image/gif" })
}

#[cfg(test)]
mod tests {
    use image::{Rgb, RgbImage, Rgba, RgbaImage};
    use proptest::prelude::*;

    use super::*;

    const LARGE: Size = Size { width: 320, height: 240, method: Method::Scale };
    const SMALL: Size = Size { width: 96, height: 96, method: Method::Crop };

    fn encoded(picture: &DynamicImage, format: ImageFormat) -> Vec<u8> {
        let mut bytes = Vec::new();
        picture.write_to(&mut Cursor::new(&mut bytes), format).unwrap();
        bytes
    }

    fn jpeg(width: u32, height: u32) -> Vec<u8> {
        encoded(&DynamicImage::ImageRgb8(RgbImage::from_pixel(width, height, Rgb([200, 30, 60]))), ImageFormat::Jpeg)
    }

    fn made(original: &[u8], size: Size, animated: bool) -> (DynamicImage, &'static str) {
        match make(original, size, animated).unwrap() {
            Made::Thumbnail { bytes, content_type } => (image::load_from_memory(&bytes).unwrap(), content_type),
            Made::Original => panic!("the original serves"),
        }
    }

    fn gif(frames: usize, width: u32) -> Vec<u8> {
        let mut bytes = Vec::new();
        {
            let mut encoder = image::codecs::gif::GifEncoder::new(&mut bytes);
            for shade in 0..frames {
                let shade = u8::try_from(shade * 20).unwrap();
                encoder
                    .encode_frame(Frame::new(RgbaImage::from_pixel(width, width, Rgba([shade, 0, 0, 255]))))
                    .unwrap();
            }
        }
        bytes
    }

    #[test]
    fn scaling_keeps_the_shape_inside_the_box() {
        let (picture, content_type) = made(&jpeg(1000, 500), LARGE, false);

        assert_eq!((picture.width(), picture.height(), content_type), (320, 160, "image/jpeg"));
    }

    #[test]
    fn cropping_fills_the_box() {
        let (picture, _) = made(&jpeg(1000, 500), SMALL, false);

        assert_eq!((picture.width(), picture.height()), (96, 96));
    }

    #[test]
    fn nothing_is_made_larger() {
        assert_eq!(make(&jpeg(50, 40), LARGE, false), Ok(Made::Original));
        let (picture, _) = made(&jpeg(1000, 48), SMALL, false);
        assert_eq!((picture.width(), picture.height()), (48, 48));
    }

    #[test]
    fn transparency_survives() {
        let picture = DynamicImage::ImageRgba8(RgbaImage::from_pixel(500, 500, Rgba([1, 2, 3, 0])));

        let (small, content_type) = made(&encoded(&picture, ImageFormat::Png), LARGE, false);

        assert_eq!(content_type, "image/png");
        assert_eq!(small.to_rgba8().get_pixel(3, 3).0[3], 0);
    }

    #[test]
    fn a_moving_picture_moves_only_for_those_who_want_it() {
        let original = gif(3, 400);

        let (_, still) = made(&original, LARGE, false);
        let Ok(Made::Thumbnail { bytes, content_type }) = make(&original, LARGE, true) else { panic!("no thumbnail") };

        assert_ne!(still, "image/gif");
        assert_eq!(content_type, "image/gif");
        let decoder = GifDecoder::new(Cursor::new(bytes)).unwrap();
        assert_eq!(decoder.dimensions(), (240, 240));
        assert_eq!(decoder.into_frames().count(), 3);
    }

    #[test]
    fn a_small_moving_picture_stands_still_for_those_who_want_it_still() {
        assert_eq!(make(&gif(3, 20), LARGE, true), Ok(Made::Original));
        assert_ne!(made(&gif(3, 20), LARGE, false).1, "image/gif");
        assert_eq!(make(&gif(1, 20), LARGE, false), Ok(Made::Original));
    }

    #[test]
    fn a_picture_with_too_many_pixels_is_refused_by_its_head_alone() {
        // A PNG whose head claims 20,000 × 20,000 pixels and which ends there.
        let mut bytes = encoded(&DynamicImage::new_rgb8(1, 1), ImageFormat::Png);
        bytes[16..20].copy_from_slice(&20_000_u32.to_be_bytes());
        bytes[20..24].copy_from_slice(&20_000_u32.to_be_bytes());
        let crc = png_crc(&bytes[12..29]);
        bytes[29..33].copy_from_slice(&crc.to_be_bytes());

        assert_eq!(make(&bytes, LARGE, false), Err(Refused::TooManyPixels));
    }

    fn png_crc(bytes: &[u8]) -> u32 {
        !bytes.iter().fold(u32::MAX, |crc, byte| {
            (0..8).fold(crc ^ u32::from(*byte), |crc, _| if crc & 1 == 1 { (crc >> 1) ^ 0xedb8_8320 } else { crc >> 1 })
        })
    }

    #[test]
    fn what_is_no_picture_is_refused() {
        for bytes in [&b""[..], b"hello", b"<svg xmlns='http://www.w3.org/2000/svg'/>", &jpeg(400, 400)[..100]] {
            assert_eq!(make(bytes, LARGE, false), Err(Refused::NotAPicture));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        #[test]
        fn no_damage_to_a_picture_makes_the_decoder_panic(
            which in 0_usize..5,
            damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
            cut in prop::option::of(any::<prop::sample::Index>()),
            animated in any::<bool>(),
        ) {
            let gradient = RgbaImage::from_fn(40, 30, |x, y| Rgba([x as u8 * 6, y as u8 * 8, 7, 255 - x as u8]));
            let gradient = DynamicImage::ImageRgba8(gradient);
            let mut bytes = match which {
                0 => encoded(&gradient, ImageFormat::Png),
                1 => encoded(&DynamicImage::ImageRgb8(gradient.to_rgb8()), ImageFormat::Jpeg),
                2 => encoded(&gradient, ImageFormat::WebP),
                3 => gif(1, 40),
                _ => gif(3, 40),
            };
            for (at, to) in damage {
                let at = at.index(bytes.len());
                bytes[at] = to;
            }
            if let Some(cut) = cut {
                bytes.truncate(cut.index(bytes.len()));
            }
            let small = Size { width: 16, height: 16, method: Method::Crop };

            if let Ok(Made::Thumbnail { bytes, .. }) = make(&bytes, small, animated) {
                let (width, height) = image::load_from_memory(&bytes).map(|made| (made.width(), made.height())).unwrap();
                prop_assert!(width <= 16 && height <= 16);
            }
        }
    }

    #[test]
    fn the_smallest_sufficient_box_is_taken() {
        let fit = |width, height, method| {
            Wanted { width, height, method, animated: false }.fit().map(|size| (size.width, size.height, size.method))
        };
        assert_eq!(fit(32, 32, Method::Crop), Some((32, 32, Method::Crop)));
        assert_eq!(fit(33, 1, Method::Crop), Some((96, 96, Method::Crop)));
        assert_eq!(fit(32, 32, Method::Scale), Some((320, 240, Method::Scale)));
        assert_eq!(fit(300, 300, Method::Crop), Some((640, 480, Method::Crop)));
        assert_eq!(fit(800, 600, Method::Scale), Some((800, 600, Method::Scale)));
        assert_eq!(fit(801, 1, Method::Scale), None);
    }
}
