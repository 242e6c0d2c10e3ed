use super::*;

/// The keys of the images and the settings, or why the file is refused.
fn read(text: &str) -> Result<(Vec<String>, String), String> {
    let template = Template::parse(text, Path::new("images.yaml")).map_err(|error| located(&error))?;
    let images = template.images(MAPPING).map_err(|error| located(&error))?;
    let settings = template.images_file().expect("this is an images file");
    let text = |setting: &Option<crate::Placed<String>>| setting.as_ref().map_or("-", |text| &text.value).to_owned();
    let environments: Vec<&str> = settings.environments.iter().map(|name| name.value.as_str()).collect();
    let settings = [&settings.registry, &settings.registry_parameter, &settings.reference].map(text);
    let images =
        images.iter().map(|image| format!("{} {} in {}", image.key, image.image_name, image.context.value.display()));
    Ok((images.collect(), format!("{} [{}]", settings.join(" "), environments.join(" "))))
}

trait Shown {
    fn shown(self) -> String;
}

impl Shown for Result<(Vec<String>, String), String> {
    fn shown(self) -> String {
        self.map_or_else(|refused| refused, |(images, settings)| format!("{}; {settings}", images.join(", ")))
    }
}

#[test]
fn images_and_settings_are_read() {
    let text = "registry: r.example/team\nreference: '{registry}/{image}:{version}'\nenvironments: [dev, prod]\nimages:\n  Web: {imageName: shop/web, context: web}\n  Job: {imageName: shop/job}\n";
    assert_eq!(
        read(text).shown(),
        "Web shop/web in web, Job shop/job in .; r.example/team - {registry}/{image}:{version} [dev prod]"
    );
    let json = r#"{"$schema": "x", "registry-parameter": "/r", "images": {"Web": {"imageName": "web"}}}"#;
    assert_eq!(read(json).shown(), "Web web in .; - /r - []");
}

#[test]
fn a_template_is_no_images_file() {
    let text = "Mappings: {ImageBuildConfiguration: {App: {imageName: app}}}\nimages: {}\n";
    let template = Template::parse(text, Path::new("template.yaml")).unwrap();
    assert_eq!(template.images_file(), None);
    assert_eq!(template.images(MAPPING).unwrap().len(), 1);
}

#[test]
fn a_file_without_images_is_meant_as_one_if_it_has_no_other_keys() {
    assert!(crate::is_meant_as_images_file("registry: r.example\nimages:\n"));
    assert!(!crate::is_meant_as_images_file("images:\ngallery: true\n"));
    assert!(!crate::is_meant_as_images_file("images: [a.png]\n"));
}

#[test]
fn mistakes_have_a_location_and_a_hint() {
    insta::assert_snapshot!(read("images: {Web: {imageName: web}}\nregistri: x\n").shown(), @"images.yaml:2:1: an images file has no key `registri` (did you mean `registry`?)");
    insta::assert_snapshot!(read("images: {}\n").shown(), @"images.yaml:1:9: `images` is empty (list the images by key, such as `Api: {imageName: shop/api}`)");
    insta::assert_snapshot!(read("registry: r.example\nimages:\n").shown(), @"images.yaml:2:1: `images` is empty (list the images by key, such as `Api: {imageName: shop/api}`)");
    insta::assert_snapshot!(read("images: {Web: {imageName: web}}\nregistry: r.example\nregistry-parameter: /r\n").shown(), @"images.yaml:3:21: `registry` and `registry-parameter` contradict each other (keep one of them)");
    insta::assert_snapshot!(read("images: {Web: {imageName: web}}\nenvironments: [dev, prod, dev]\n").shown(), @"images.yaml:2:27: `environments` has `dev` twice (the other is at images.yaml:2:16)");
    insta::assert_snapshot!(read("images: [web]\n").shown(), @"images.yaml:1:9: `images` is a list, not a mapping");
    insta::assert_snapshot!(read("images: {Web: {context: web}}\n").shown(), @"images.yaml:1:10: `images.Web` has no `imageName` (add `imageName: web`, the repository's path below the registry)");
    insta::assert_snapshot!(read("images: {Web: {imageName: web, contxt: web}}\n").shown(), @"images.yaml:1:32: `images.Web` has an unknown key `contxt` (did you mean `context`?)");
    insta::assert_snapshot!(read("images: {Web: {imageName: web}}\nregistry: [a]\n").shown(), @"images.yaml:2:11: `registry` is a list, not a string");
    insta::assert_snapshot!(read("images: {Web: {imageName: web}}\nenvironments: dev\n").shown(), @"images.yaml:2:15: `environments` is a string, not a list (such as [dev, test, prod])");
}
